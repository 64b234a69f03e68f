"""Label Studio's API: the only package that calls label-studio-sdk."""
