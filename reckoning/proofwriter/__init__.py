"""ProofWriter: theories of facts and rules, their labels and proofs, and problems made from them."""
