"""Many networks for one task: what each is worth and costs, and which one to ship."""
