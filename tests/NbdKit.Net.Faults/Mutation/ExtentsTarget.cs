using System.Buffers.Binary;

namespace NbdKit.Faults.Mutation;

/// <summary>A plugin that reports extents as nonsense has it, between two sides that obey the rules.</summary>
/// <remarks>The last piece is not sent: it says what the plugin reports, 10 bytes for each extent.</remarks>
internal sealed class ExtentsTarget : ServerTarget
{
    private const int Entry = 10;

    // What exceptions cost is the plugin's own affair.
    private const int MostSwallowed = 8;

    private int _swallowed;

    public ExtentsTarget()
        : base(handshake: false)
    {
    }

    public override string Name => "extents";

    public override bool IsStream => false;

    public override MutantStream Make(Random random, bool legal)
    {
        int form = random.Next(2) == 0 ? 2 : 4;
        string export = legal ? "" : random.Next(4) switch { 0 => "", 1 => "odd", 2 => MutantHandle.Sick, _ => "huge" };
        List<WireMessage> session = ClientSpeech.Handshake(random, 0, form, export);
        ulong size = export switch { "" or MutantHandle.Sick => 64 << 10, "odd" => 1_000_000 & ~511UL, _ => (1UL << 62) };
        for (int i = random.Next(1, 5); i > 0; i--)
        {
            ulong length = Math.Min(size, random.Next(4) switch
            {
                0 => 512UL << random.Next(8),
                1 => size,
                2 => form == 4 ? 1UL << random.Next(9, 62) : uint.MaxValue & ~511U,
                _ => (uint)random.Next(1, 128) * 512UL,
            });
            length = form == 4 ? length : Math.Min(length, uint.MaxValue & ~511U);
            ulong offset = (ulong)random.NextInt64((long)(size - length) + 1) & ~511UL;
            ushort flags = random.Next(3) == 0 ? Tests.Testing.CmdFlag.ReqOne : Tests.Testing.CmdFlag.None;
            bool reads = random.Next(3) == 0;
            session.Add(WireMessage.Request(
                form == 4,
                reads ? Tests.Testing.Cmd.Read : Tests.Testing.Cmd.BlockStatus,
                reads ? Tests.Testing.CmdFlag.None : flags,
                (ulong)random.NextInt64(),
                offset,
                reads ? Math.Min(length, 64 << 10) : length));
        }
        session.Add(WireMessage.Request(form == 4, Tests.Testing.Cmd.Disc, 0, 0, 0, 0));
        byte[] script = new byte[legal ? 0 : Entry * random.Next(12)];
        random.NextBytes(script);
        return new MutantStream(0, [Mutator.Join(session), script]);
    }

    public override async Task<long> RunAsync(MutantStream stream, bool legal)
    {
        byte[] script = stream.Chunks.Length > 0 ? stream.Chunks[^1] : [];
        _swallowed = 0;
        Plugin.Extents = script.Length < Entry ? null : (offset, length, extents) => Report(script, offset, length, extents);
        return await ServeAsync(stream.Variant, stream.Chunks.Length > 0 ? stream.Chunks[..^1] : [], legal);
    }

    private void Report(ReadOnlySpan<byte> script, long offset, long length, ExtentList extents)
    {
        long at = offset;
        for (; script.Length >= Entry; script = script[Entry..])
        {
            byte how = script[0];
            var status = (ExtentStatus)script[1];
            long raw = BinaryPrimitives.ReadInt64BigEndian(script[2..]);
            long some = (raw & long.MaxValue) >> (int)(raw & 63);
            (long from, long count) = (how & 15) switch
            {
                < 8 => (at, some),
                8 => (at, length),
                9 => (0, at),
                10 => (at, long.MaxValue - at),
                11 => (at - 1, some),
                12 => (at + 1, some),
                13 => (raw, some),
                14 => (at, raw),
                _ => (at, 0),
            };
            try
            {
                extents.Add(from, count, (how & 64) != 0 ? (ExtentStatus)(ulong)raw : status);
                at = from + count;
            }
            catch (ArgumentException) when ((how & 16) != 0 && _swallowed++ < MostSwallowed)
            {
                // A plugin may answer all the same.
                return;
            }
        }
    }
}
