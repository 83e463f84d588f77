"""The operators, a file for each family. Every file of this folder is imported, so adding one is all it takes."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, __name__ + "."):
    importlib.import_module(_module.name)
