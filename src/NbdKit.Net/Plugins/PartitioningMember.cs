namespace NbdKit.Plugins;

/// <summary>One partition of a <see cref="PartitioningPlugin"/>.</summary>
/// <param name="Chain">What the partition holds: the outermost layer of a chain.</param>
public sealed record PartitioningMember(NbdBackend Chain)
{
    /// <summary>The type that a GPT partition has by default: Linux file system data.</summary>
    public static Guid DefaultTypeGuid { get; } = new("0FC63DAF-8483-4772-8E79-3D69D8477DE4");

    /// <summary>The type that an MBR partition has by default: Linux file system.</summary>
    public const byte DefaultMbrId = 0x83;

    /// <summary>The number of bytes that the offset of the partition in the disk is a multiple of.</summary>
    /// <value>1 MiB by default; a multiple of 512 up to 2^40.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is anything else.</exception>
    public long Alignment
    {
        get;
        init
        {
            if (value is < 512 or > 1L << 40 || value % 512 != 0)
            {
                throw new ArgumentOutOfRangeException(
                    nameof(Alignment), value, "The alignment of a partition is a multiple of 512, up to 2^40 bytes.");
            }
            field = value;
        }
    } = 1 << 20;

    /// <summary>Its type in an MBR. <see cref="DefaultMbrId"/> by default; 0 would be no partition.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is 0, or the type of a container (05h, 0Fh, 85h, EEh).</exception>
    public byte MbrId
    {
        get;
        init
        {
            if (value is 0 or 0x05 or 0x0F or 0x85 or 0xEE)
            {
                throw new ArgumentOutOfRangeException(
                    nameof(MbrId), value, $"The MBR type 0x{value:x2} is not one of a partition with data.");
            }
            field = value;
        }
    } = DefaultMbrId;

    /// <summary>Its type in a GPT. <see cref="DefaultTypeGuid"/> by default.</summary>
    /// <exception cref="ArgumentException">The value is all zeroes, which would be no partition.</exception>
    public Guid TypeGuid
    {
        get;
        init => field = value != Guid.Empty
            ? value
            : throw new ArgumentException("A GPT type of zeroes would be no partition.", nameof(TypeGuid));
    } = DefaultTypeGuid;
}
