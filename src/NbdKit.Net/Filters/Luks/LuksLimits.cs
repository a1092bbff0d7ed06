namespace NbdKit.Filters.Luks;

/// <summary>What headers may ask for. Whoever made one decides how much work it is to open, but only within these limits.</summary>
internal static class LuksLimits
{
    /// <summary>The stripes of one key slot: all programs that make them use 4,000.</summary>
    public const int MostStripes = 10_000;

    /// <summary>Checks a number of iterations of PBKDF2; how much they all cost is limited when they are made.</summary>
    public static int Iterations(long count, string what)
        => count is > 0 and <= int.MaxValue ? (int)count : throw Fault.Refused($"{what} has {count} iterations");

    public static int Stripes(long count, string what)
        => count is > 0 and <= MostStripes
            ? (int)count
            : throw Fault.Refused($"{what} has {count} stripes, which is not from 1 to {MostStripes}");

    /// <summary>Checks the costs of Argon2 against what its standard and programs have.</summary>
    public static Argon2Derivation Argon2(string what, Argon2Kind kind, long passes, long memoryKiB, long lanes, byte[] salt)
        => passes is > 0 and <= int.MaxValue && lanes is > 0 and <= 64 && memoryKiB >= 8 * lanes && memoryKiB <= 4 << 20
            ? new Argon2Derivation(kind, (int)passes, (int)memoryKiB, (int)lanes, salt)
            : throw Fault.Refused($"{what} has argon2 with {passes} passes, {memoryKiB} KiB and {lanes} lanes");

    public static void RequireInside(KeySlot slot, long diskSize)
    {
        if (!VolumeHeader.IsInside(slot.Offset, slot.AreaBytes, diskSize))
        {
            throw Fault.Refused($"{slot.Name} is beyond the end of the disk");
        }
    }
}
