"""Muon: what it does to a matrix, and that it gets a matrix where it should go."""

import torch

from demo.optimizers import Muon, orthogonalised


def test_orthogonalising_makes_all_directions_about_equally_strong():
    torch.manual_seed(0)
    for rows, columns in ((16, 40), (40, 16)):
        strengths = torch.linalg.svdvals(orthogonalised(torch.randn(3, rows, columns)))
        assert strengths.min() > 0.5
        assert strengths.max() < 1.3


def test_orthogonalising_keeps_directions():
    torch.manual_seed(0)
    matrix = torch.randn(1, 12, 30)
    u, _, vh = torch.linalg.svd(matrix[0], full_matrices=False)
    aligned = u.T @ orthogonalised(matrix)[0] @ vh.T
    assert (aligned - torch.diag(aligned.diagonal())).abs().max() < 1e-3
    assert (aligned.diagonal() > 0).all()


def test_muon_brings_matrices_of_different_shapes_to_their_targets():
    torch.manual_seed(0)
    targets = [torch.randn(8, 8), torch.randn(8, 8), torch.randn(6, 12)]
    weights = [torch.nn.Parameter(torch.zeros_like(target)) for target in targets]
    muon = Muon(weights, lr=0.05)
    for step in range(400):
        muon.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        loss = sum((w - t).square().sum() for w, t in zip(weights, targets, strict=True))
        muon.zero_grad()
        loss.backward()
        muon.step()
    for weight, target in zip(weights, targets, strict=True):
        assert (weight - target).norm() < 0.05 * target.norm()


def test_weight_decay_pulls_towards_zero():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(weight, torch.full((2, 2), 0.95))
