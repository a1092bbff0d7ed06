namespace NbdKit.Filters.Luks;

/// <summary>The variants of Argon2, with their numbers.</summary>
internal enum Argon2Kind
{
    /// <summary>Blocks are chosen by content.</summary>
    D = 0,

    /// <summary>Blocks are chosen by place.</summary>
    I = 1,

    /// <summary>Half of the first pass as <see cref="I"/>, the rest as <see cref="D"/>.</summary>
    Id = 2,
}
