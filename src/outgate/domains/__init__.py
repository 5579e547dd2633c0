"""May this domain send through us? Asked as resumable questions to DNS; no I/O here.

`ask` has the questions and answers, `spf` and `spf_record` evaluate a domain's policy, `dkim` writes signatures
and `dkim_key` judges key records. `net.dns` gives the answers.
"""
