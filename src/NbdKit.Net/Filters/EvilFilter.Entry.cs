namespace NbdKit.Filters;

// The parameters.
public sealed partial class EvilFilter
{
    private static readonly (string Word, EvilMode Meaning)[] Modes =
    [
        ("cosmic-rays", EvilMode.CosmicRays),
        ("cosmic", EvilMode.CosmicRays),
        ("stuck-bits", EvilMode.StuckBits),
        ("stuck-bit", EvilMode.StuckBits),
        ("stuck", EvilMode.StuckBits),
        ("stuck-wires", EvilMode.StuckWires),
        ("stuck-wire", EvilMode.StuckWires),
    ];

    /// <summary>The filter in the catalogue.</summary>
    /// <remarks><c>evil-burst</c> is not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "evil",
        "corrupts bits of what is read",
        [
            new NbdParameter("evil", "cosmic-rays, stuck-bits or stuck-wires (default stuck-bits)"),
            new NbdParameter("evil-mode", "the same as evil"),
            new NbdParameter("evil-probability", "how likely a bit is to be bad (default 1e-8, or 1e-6 for stuck-wires)"),
            new NbdParameter("evil-stuck-probability", "how likely a stuck bit is to show in a read (default 1)"),
            new NbdParameter("evil-burst", "how many neighbouring bits are bad together (default 1)"),
            new NbdParameter("evil-seed", "seed of the random numbers (default: a different one each time)"),
        ],
        parameters => new EvilFilter
        {
            Mode = parameters.OneOf("evil", Modes) ?? parameters.OneOf("evil-mode", Modes) ?? EvilMode.StuckBits,
            Probability = parameters.Probability("evil-probability"),
            StuckProbability = parameters.Probability("evil-stuck-probability") ?? 1,
            Burst = parameters.Integer("evil-burst") ?? 1,
            Seed = parameters.Integer("evil-seed"),
        });
}
