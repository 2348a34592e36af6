from varlab.figures.spectra import *
from varlab.figures.style import panels
from varlab.figures.save import save
