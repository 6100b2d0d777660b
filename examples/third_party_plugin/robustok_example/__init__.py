"""One small component of each kind, packaged outside robustok."""
