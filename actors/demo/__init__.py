"""The demonstration: the main job on real input. It is built from the outside, with what every user has."""
