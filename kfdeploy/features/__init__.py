"""What a site adds: each feature is a folder here and one entry of `registry.FEATURES`.

Offers `Feature` and the values it gives. Everything else asks the list and names no feature. Stands
before the workspace, whose model takes the features' settings: a feature sees `FeatureEnvironment`
and `RenderedSet`, and must not know the workspace, the stages or the command line.
"""
