"""Running code that nobody has read, and a verdict on it: `sandbox.find_sandbox(limits).run(sources)`."""
