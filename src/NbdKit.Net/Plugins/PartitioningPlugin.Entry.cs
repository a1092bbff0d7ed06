namespace NbdKit.Plugins;

// The parameters of the command line: some apply to the files that follow them.
public sealed partial class PartitioningPlugin
{
    /// <summary>
    /// The plugin in the catalogue: <c>partitioning</c>, with the magic parameter <c>file</c>, which is repeatable. The parameters
    /// <c>alignment</c>, <c>mbr-id</c> and <c>type-guid</c> apply to the files that follow them.
    /// </summary>
    public static NbdPluginEntry Entry { get; } = new(
        "partitioning",
        "one disk with a partition table around several files",
        [
            new NbdParameter("file", "a file or block device; once for each partition, in order")
            {
                IsRequired = true,
                IsRepeatable = true,
            },
            new NbdParameter("partition-type", "mbr or gpt (default: mbr if it will do)"),
            new NbdParameter("alignment", "alignment of the following partitions (default 1M)") { IsRepeatable = true },
            new NbdParameter("mbr-id", "MBR type of the following partitions: 0xNN or default (0x83)") { IsRepeatable = true },
            new NbdParameter("type-guid", "GPT type of the following partitions: a GUID or default (Linux data)")
            {
                IsRepeatable = true,
            },
            new NbdParameter("disk-guid", "GUID of a GPT disk, and seed of those of its partitions (default: random)"),
            new NbdParameter(
                "sector-size", "512 or 4096 (default: the members' minimum block size if it is one of these, else 512)"),
        ],
        Create)
    {
        MagicParameter = "file",
    };

    private static PartitioningPlugin Create(NbdParameters parameters)
    {
        var partitions = new List<PartitioningMember>();
        long alignment = 1 << 20;
        byte mbrId = PartitioningMember.DefaultMbrId;
        Guid typeGuid = PartitioningMember.DefaultTypeGuid;
        foreach ((string name, string value) in parameters.All)
        {
            switch (name)
            {
                case "alignment":
                    alignment = Parsed(name, value, NbdParse.Size);
                    break;
                case "mbr-id":
                    mbrId = value == "default"
                        ? PartitioningMember.DefaultMbrId
                        : Parsed(name, value, text => (byte)NbdParse.Integer(text, 1, 255));
                    break;
                case "type-guid":
                    typeGuid = value == "default" ? PartitioningMember.DefaultTypeGuid : Parsed(name, value, GuidOf);
                    break;
                case "file":
                    partitions.Add(new PartitioningMember(NbdBackend.Compose(new FilePlugin { Path = value }))
                    {
                        Alignment = alignment,
                        MbrId = mbrId,
                        TypeGuid = typeGuid,
                    });
                    break;
                default:
                    break;
            }
        }
        PartitioningType type = parameters.Text("partition-type")?.ToUpperInvariant() switch
        {
            null => PartitioningType.Auto,
            "MBR" or "DOS" => PartitioningType.Mbr,
            "GPT" => PartitioningType.Gpt,
            _ => throw new ArgumentException(
                $"partitioning: partition-type={parameters.Text("partition-type")}: it is mbr or gpt.", "partition-type"),
        };
        return new PartitioningPlugin
        {
            Partitions = partitions,
            Type = type,
            DiskGuid = parameters.Text("disk-guid") is { } disk ? Parsed("disk-guid", disk, GuidOf) : Guid.NewGuid(),
            SectorSize = parameters.Size("sector-size"),
        };
    }

    // With braces or without, as nbdkit takes it.
    private static Guid GuidOf(string text)
        => Guid.TryParseExact(text, text.StartsWith('{') ? "B" : "D", out Guid guid)
            ? guid
            : throw new FormatException($"'{text}' is not a GUID.");

    private static T Parsed<T>(string name, string value, Func<string, T> parse)
    {
        try
        {
            return parse(value);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"partitioning: {name}={value}: {e.Message}", name, e);
        }
    }
}
