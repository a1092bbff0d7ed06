namespace NbdKit.Faults.Hostile;

/// <summary>How the clients of a row connect.</summary>
internal enum ClientVariant
{
    /// <summary>With all that the protocol offers.</summary>
    Modern,

    /// <summary>Encrypted.</summary>
    Encrypted,

    /// <summary>With simple replies.</summary>
    Simple,
}
