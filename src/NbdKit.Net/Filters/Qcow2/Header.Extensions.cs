using System.Text;

namespace NbdKit.Filters.Qcow2;

// What follows the fixed part of the header.
internal sealed partial class Header
{
    private const uint EndOfExtensions = 0;
    private const uint BackingFormatExtension = 0xE279_2ACA;
    private const uint FeatureNamesExtension = 0x6803_F857;
    private const uint DataFileExtension = 0x4441_5441;

    private void ReadExtensions(ReadOnlySpan<byte> start, int at, ulong features)
    {
        ReadOnlySpan<byte> names = default;
        // The name of the backing file may follow at once, without an end of the extensions.
        ulong nameOffset = start.U64(8);
        int end = BackingFile is not null && nameOffset >= (uint)at ? (int)nameOffset : start.Length;
        while (end - at >= 8 && start.U32(at) is not EndOfExtensions and var type)
        {
            uint length = start.U32(at + 4);
            at += 8;
            if (length > end - at)
            {
                throw Fault.Damaged($"an extension of its header, {type:x8}, has {length} bytes");
            }
            ReadOnlySpan<byte> data = start.Slice(at, (int)length);
            switch (type)
            {
                case BackingFormatExtension:
                    BackingFormat = Encoding.UTF8.GetString(data);
                    break;
                case DataFileExtension:
                    DataFile = Encoding.UTF8.GetString(data);
                    break;
                case FeatureNamesExtension:
                    names = data;
                    break;
                default:
                    break;
            }
            at = (int)Math.Min(end, at + (((long)length + 7) & ~7L));
        }
        if (Features.Unreadable(features, names) is { Length: > 0 } unknown)
        {
            throw Fault.Refused($"the qcow2 image has incompatible features that are not known: {unknown}");
        }
    }
}
