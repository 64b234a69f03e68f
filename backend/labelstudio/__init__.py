"""The only caller of Label Studio: its API, its records, and how it is connected."""
