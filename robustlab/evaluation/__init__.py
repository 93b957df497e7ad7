"""The main job: classifiers x data x suite -> a run folder.

In the order of its flow: `inputs`, `targets`, `plan`, `cascade`, `judging`, `randomised`, `record`, `options`,
`processes`, `evaluate`; what is asked beside the suite lies in `studies`.
"""
