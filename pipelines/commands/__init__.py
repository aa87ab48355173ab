"""One module a command: its arguments (`add_arguments`) and its work (`main`).

What the user can mend is raised as a `PipelineError`, which `pipelines.cli` shows in one line.
"""
