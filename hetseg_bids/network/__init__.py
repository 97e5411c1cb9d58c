"""The network, its weights and plan on disk, and the device on which it runs.

How it is applied to a scan is in `segmentation`, how it is trained in `training`.
"""
