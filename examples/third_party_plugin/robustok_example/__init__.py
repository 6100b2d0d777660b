"""One small component of each kind, from outside robustok's tree."""
