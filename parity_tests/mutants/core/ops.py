"""Planted bugs of `port/core/ops.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/ops.py"
MUTANTS = (
    Mutant("safe-log-zero", FILE, "torch.where(is_zero, -1e8, torch.log(tensor))",
           "torch.where(is_zero, 0.0, torch.log(tensor))", "log of an absent part is 0, not -1e8",
           "Dinngger, cxiang26"),
    Mutant("safe-log-no-floor", FILE, "is_zero = tensor < eps", "is_zero = tensor < 0.0",
           "no floor under the logarithm", "phanideepgampa"),
    Mutant("softplus-threshold", FILE, "threshold=40.0", "threshold=20.0",
           "PyTorch's default threshold of softplus"),
    Mutant("torch-logsumexp", FILE,
           "torch.log(torch.sum(torch.exp(x - shift), dim=axis, keepdim=True)) + shift",
           "torch.logsumexp(x, axis, keepdim=True)", "logsumexp's gradient when all parts are absent"),
    Mutant("relu1-clip-six", FILE, "F.relu6(6.0 * x) / 6.0", "F.relu6(x)", "clip at 6 instead of 1"),
    Mutant("pose-order", FILE, "scale_x, scale_y, theta, shear, trans_x, trans_y = pose_tensor",
           "trans_x, trans_y, scale_x, scale_y, theta, shear = pose_tensor",
           "pose parameters read in another order", "mlberkeley"),
    Mutant("tanh-half", FILE, "torch.tanh(v * 5.0)", "torch.tanh(v * 0.5)",
           "translation squashed by tanh(x/2)", "mlberkeley"),
    Mutant("theta-not-turns", FILE, "theta = theta * (2.0 * math.pi)", "theta = theta * 1.0",
           "rotation not scaled to turns"),
    Mutant("theta-doubled", FILE, "theta = theta * (2.0 * math.pi)",
           "theta = theta * (2.0 * math.pi) ** 2", "rotation scaled twice", "cxiang26"),
    Mutant("no-scale-floor", FILE, "torch.sigmoid(scale_x) + 1e-2, torch.sigmoid(scale_y) + 1e-2",
           "torch.sigmoid(scale_x), torch.sigmoid(scale_y)", "scale without its floor of 0.01"),
    Mutant("rotation-sign", FILE, "scale_x * c + shear * scale_y * s, -scale_x * s + shear * scale_y * c",
           "scale_x * c + shear * scale_y * s, scale_x * s + shear * scale_y * c",
           "a sign of the rotation"),
)
