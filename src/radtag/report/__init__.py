"""From numbers and pictures to one HTML file that needs no network: :mod:`.page` for one evaluation, :mod:`.comparison`
for several, :mod:`.plots` for the curves, :mod:`.definitions` for what every number is."""
