"""Methods that search the coefficients of a merge by evolution, and what they estimate fitness by.

From the bottom up: `irt` is a model of who answers which item, `anchors` chooses the items that are
asked, `abilities` and `estimators` make an accuracy of their answers. `genotype` and
`contributions` make a vector of numbers, `search` changes the numbers, `examiner` asks.
"""
