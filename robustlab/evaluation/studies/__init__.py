"""The questions asked in a run, one file each, in the order in which they are asked.

A new study is a file here or in a package of its own, and a line in this list; see `base.Study`.
"""

STUDIES = [
    "robustlab.evaluation.studies.suite:SuiteStudy",
    "robustlab.evaluation.studies.transfer:TransferMatrix",
    "robustlab.evaluation.studies.audit.study:Audit",
    "robustlab.evaluation.studies.detection:Detection",
    "robustlab.evaluation.studies.heatmaps:Heatmaps",
]
