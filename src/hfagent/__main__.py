"""`python -m hfagent` is the same program as `hfagent`."""

from hfagent.agent.cli import main

if __name__ == "__main__":
    main()
