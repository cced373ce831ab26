"""The benchmarks: kfdeploy side by side with the programs it stands beside, in one run."""
