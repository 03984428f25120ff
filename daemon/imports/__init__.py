"""Moving in and out: definitions from CloudFormation and from AWS's API into files, and files into a running daemon.

`template`, `intrinsics`, `cloudformation`: a template to drafts · `api`, `account`: what an endpoint holds · `drafts`,
`sift`: what of that detectd accepts · `plan`: what it takes to make an endpoint match files. No command line in here.
"""
