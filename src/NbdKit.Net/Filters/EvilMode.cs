namespace NbdKit.Filters;

/// <summary>What <see cref="EvilFilter"/> does to the bits that are read.</summary>
public enum EvilMode
{
    /// <summary>Bits are flipped at random, others in each read (<c>cosmic-rays</c>).</summary>
    CosmicRays,

    /// <summary>Some bits of the disk read as 0, or as 1, whatever was written (<c>stuck-bits</c>).</summary>
    StuckBits,

    /// <summary>Some bits of every request, counted from its first byte, read as 0 or as 1 (<c>stuck-wires</c>).</summary>
    StuckWires,
}
