"""From numbers and pictures to one HTML file that opens offline: :mod:`.page` for one evaluation, :mod:`.comparison`
for several, :mod:`.plots` for the curves, :mod:`.definitions` for what every number is."""
