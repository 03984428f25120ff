"""Moving definitions in and out: from AWS or CloudFormation to files, from the API to files, from files to the API.

What travels is `config.model.Rules` without limits, whatever it comes from or goes to.
"""
