"""The main job: classifiers x data x suite -> a run folder.

Start at `evaluate`; then, in the order of the flow: `inputs`, `targets`, `plan`, `engine`, `cascade`, `judging`,
`units`, `record`. What is asked in a run lies in `studies`. ARCHITECTURE.md follows one image through all of it.
"""
