namespace NbdKit.Filters.Luks;

/// <summary>What can be wrong with an encrypted disk.</summary>
internal static class Fault
{
    /// <summary>The disk is none that can be decrypted, or its header contradicts itself.</summary>
    public static NbdException Refused(string why)
        => new(NbdError.InvalidArgument, $"the disk cannot be decrypted: {why}");
}
