namespace NbdKit.Tests.Testing;

/// <summary>One export of a <see cref="TestPlugin"/>: memory, with everything about it adjustable.</summary>
internal sealed class TestExport(string name = "", int size = 64 << 10)
{
    public string Name { get; } = name;

    public string? Description { get; init; }

    /// <summary>The content; what lies beyond it reads as zeroes and forgets writes.</summary>
    public byte[] Data { get; init; } = Pattern(size);

    /// <summary>The size that the export claims, if it is not that of <see cref="Data"/>.</summary>
    public long? Size { get; init; }

    /// <summary>Changes the answer of an export that can do everything natively.</summary>
    public Func<NbdExportInfo, NbdExportInfo> Configure { get; init; } = info => info;

    /// <summary>Runs before each data call, and may fail or delay it.</summary>
    public Func<PluginCall, ValueTask>? Before { get; set; }

    /// <summary>Reports extents; all data if null.</summary>
    public Action<PluginCall, ExtentList>? Extents { get; set; }

    public NbdExportInfo Info => Configure(new NbdExportInfo
    {
        Size = Size ?? Data.Length,
        Description = Description,
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFastZero = true,
        CanFua = Support.Native,
        CanCache = Support.Native,
        CanMultiConn = true,
        CanExtents = true,
    });

    /// <summary>Bytes that tell where they are.</summary>
    public static byte[] Pattern(int size)
    {
        byte[] data = new byte[size];
        for (int i = 0; i < size; i++)
        {
            data[i] = (byte)((i * 7) ^ (i >> 9) ^ 0xa5);
        }
        return data;
    }
}
