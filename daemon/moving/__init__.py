"""Moving definitions in and out: from AWS or CloudFormation to files, from the API to files, from files to the API.

`template`, `intrinsics`, `members`, `cloudformation`: a template to drafts · `api`, `account`: what an endpoint holds ·
`drafts`, `sift`: what of that detectd accepts · `files`: as files · `plan`: what it takes to make an endpoint match
files. No command line in here.
"""
