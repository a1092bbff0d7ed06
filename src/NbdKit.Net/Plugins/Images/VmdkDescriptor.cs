using System.Globalization;
using System.Text;

namespace NbdKit.Plugins.Images;

/// <summary>
/// The text that describes a disk: lines of the form <c>key=value</c>, and one for each extent,
/// <c>ACCESS SECTORS KIND ["FILE" [OFFSET]]</c>. What is not known is passed over.
/// </summary>
internal sealed class VmdkDescriptor
{
    private const int MostExtents = 4096;

    private VmdkDescriptor()
    {
    }

    public static ReadOnlySpan<byte> Start => "# Disk DescriptorFile"u8;

    /// <summary>What kind of disk it says it is, such as <c>monolithicFlat</c>.</summary>
    public string Kind { get; private set; } = "";

    public List<VmdkExtentLine> Extents { get; } = [];

    /// <summary>Reads a descriptor, and refuses one of a snapshot.</summary>
    public static VmdkDescriptor Parse(ReadOnlySpan<byte> bytes)
    {
        int end = bytes.IndexOf((byte)0);
        var descriptor = new VmdkDescriptor();
        foreach (string raw in Encoding.UTF8.GetString(end < 0 ? bytes : bytes[..end]).Split('\n'))
        {
            string line = raw.Trim();
            int equals = line.IndexOf('=', StringComparison.Ordinal);
            if (line.StartsWith("RW ", StringComparison.Ordinal)
                || line.StartsWith("RDONLY ", StringComparison.Ordinal)
                || line.StartsWith("NOACCESS ", StringComparison.Ordinal))
            {
                descriptor.Add(line);
            }
            else if (equals > 0 && !line.StartsWith('#'))
            {
                descriptor.Set(line[..equals].Trim(), line[(equals + 1)..].Trim().Trim('"'));
            }
        }
        return descriptor;
    }

    private void Set(string key, string value)
    {
        if (key == "createType")
        {
            Kind = value;
        }
        else if (key == "parentCID" && !value.Equals("ffffffff", StringComparison.OrdinalIgnoreCase))
        {
            throw new NbdException(
                NbdError.InvalidArgument, "the VMDK image holds only the changes to another one, its parent; such snapshots are not read");
        }
    }

    private void Add(string line)
    {
        if (Extents.Count == MostExtents)
        {
            throw VmdkHeader.Damaged($"it has more than {MostExtents} extents");
        }
        string[] quoted = line.Split('"');
        string[] words = quoted[0].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        string[] rest = quoted.Length == 3 ? quoted[2].Split(' ', StringSplitOptions.RemoveEmptyEntries) : [];
        long offset = 0;
        if (words.Length != 3
            || quoted.Length is not (1 or 3)
            || !TrySectors(words[1], out long size)
            || size == 0
            || (rest.Length > 0 && !TrySectors(rest[0], out offset))
            || (quoted.Length == 1 && words[2] != "ZERO"))
        {
            throw VmdkHeader.Damaged($"extent {Extents.Count + 1} of its descriptor cannot be read");
        }
        Extents.Add(new VmdkExtentLine(words[0] != "NOACCESS", size, words[2], quoted.Length == 3 ? quoted[1] : "", offset));
    }

    private static bool TrySectors(string text, out long bytes)
    {
        bool isNumber = long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long sectors)
            && sectors <= long.MaxValue / VmdkHeader.Size;
        bytes = isNumber ? sectors * VmdkHeader.Size : 0;
        return isNumber;
    }
}
