import sys

from sifa_zoo.cli import main

sys.exit(main())
