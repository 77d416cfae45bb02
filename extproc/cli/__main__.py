"""`python -m extproc.cli`: how the supervisors here start their own processes, whatever PATH says."""

from extproc.cli import main

if __name__ == "__main__":
    main(prog_name="tokenpool")
