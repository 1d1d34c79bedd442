"""The theorem's bench: its network, data, algorithm and every quantity of its proof, measured."""
