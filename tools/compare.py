"""Compare strategies: python tools/compare.py [configs/compare/....yaml] [--data PATH] [--jobs N]."""

import sys

from det_seg_agent.compare.cli import main

if __name__ == "__main__":
    sys.exit(main())
