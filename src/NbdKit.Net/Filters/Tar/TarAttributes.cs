using System.Globalization;
using System.Text;

namespace NbdKit.Filters.Tar;

/// <summary>What the blocks before the header of a member say about it, where the header has no room.</summary>
internal sealed class TarAttributes
{
    private string? _name;
    private string? _sparseName;

    /// <summary>The size of the content, if it was given.</summary>
    public long? Size { get; private set; }

    /// <summary>Whether the member is a sparse file in one of the ways of GNU tar.</summary>
    public bool IsSparse { get; private set; }

    /// <summary>The name, if it was given; that of the sparse file and not of what stands for it.</summary>
    public string? Name => _sparseName ?? _name;

    /// <summary>Takes a long name of GNU tar, which ends with a zero byte.</summary>
    public void SetName(ReadOnlySpan<byte> content) => _name ??= TarHeader.Text(content);

    /// <summary>
    /// Takes a pax header ("pax Extended Header" in POSIX): records of the form <c>LENGTH KEY=VALUE\n</c>, the length that of
    /// the whole record, in decimal.
    /// </summary>
    /// <returns>False if it has no such form, or the size is not a number from 0 to 2^63-1.</returns>
    public bool TryAdd(ReadOnlySpan<byte> records)
    {
        while (!records.IsEmpty)
        {
            int blank = records.IndexOf((byte)' ');
            if (blank < 0
                || !int.TryParse(records[..blank], NumberStyles.None, CultureInfo.InvariantCulture, out int length)
                || length <= blank + 1
                || length > records.Length
                || records[length - 1] != (byte)'\n')
            {
                return false;
            }
            ReadOnlySpan<byte> record = records[(blank + 1)..(length - 1)];
            int equals = record.IndexOf((byte)'=');
            if (equals < 0 || !TryAdd(record[..equals], record[(equals + 1)..]))
            {
                return false;
            }
            records = records[length..];
        }
        return true;
    }

    private bool TryAdd(ReadOnlySpan<byte> key, ReadOnlySpan<byte> value)
    {
        if (key.SequenceEqual("path"u8))
        {
            _name = Encoding.UTF8.GetString(value);
        }
        else if (key.SequenceEqual("size"u8))
        {
            if (!long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out long size))
            {
                return false;
            }
            Size = size;
        }
        else if (key.StartsWith("GNU.sparse."u8))
        {
            IsSparse = true;
            _sparseName = key.SequenceEqual("GNU.sparse.name"u8) ? Encoding.UTF8.GetString(value) : _sparseName;
        }
        return true;
    }
}
