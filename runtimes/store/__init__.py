"""What lies on disk: engine artefacts, generations and the trust in them. Knows no runtime."""
