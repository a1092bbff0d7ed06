namespace NbdKit.Plugins.Data;

/// <summary>Receives bytes in the order of their offsets; what it is not given is zero.</summary>
internal interface IDataSink
{
    /// <summary>One more round of something that is repeated, with bytes or without.</summary>
    void Step();

    void Write(long offset, ReadOnlySpan<byte> data);

    void Fill(long offset, byte value, long count);
}
