"""`python -m r2unet` runs the command `r2unet`."""

import sys

from r2unet.commands.main import main

sys.exit(main())
