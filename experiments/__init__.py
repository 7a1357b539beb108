"""Experiments with ltjax: commands, and the packages that they are made of.

Each line imports from lines below it only:

    train compare gradtail_study report results suspects geometry queue
    training
    digits
    reporting
    configs
    datasets
    methods
    models
    records
"""
