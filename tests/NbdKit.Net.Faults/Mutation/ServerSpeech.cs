using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>Writes what a server says in the handshake to a client of a <see cref="ClientForm"/>, as fields.</summary>
internal static class ServerSpeech
{
    public const ulong Size = 1 << 20;

    public const uint FirstContext = 7;

    private const ushort Flags = TxFlag.HasFlags | TxFlag.SendFlush | TxFlag.SendFua | TxFlag.SendTrim | TxFlag.SendWriteZeroes
        | TxFlag.SendDf | TxFlag.SendCache;

    private static readonly uint[] Refusals =
    [
        Rep.Unsup, Rep.Policy, Rep.Invalid, Rep.Platform, Rep.TlsRequired, Rep.Unknown, Rep.Shutdown, Rep.BlockSizeRequired, Rep.TooBig,
        Rep.ExtendedHeadersRequired, 0x80000063,
    ];

    /// <summary>The greeting and the replies to the options that the client sends.</summary>
    public static List<WireMessage> Handshake(Random random, ClientForm form)
    {
        bool noZeroes = random.Next(4) > 0;
        // Before there were options there was one way in only.
        if (form is { IsStructured: false, IsRefused: true } && random.Next(2) == 0)
        {
            return [Greeting(noZeroes ? 2u : 0), Export(noZeroes)];
        }
        List<WireMessage> messages = [.. Beginning(form, noZeroes), .. Contexts(form)];
        if (form.IsRefused)
        {
            messages.Add(Refusal(Opt.Go, Rep.Unsup));
            messages.Add(Export(noZeroes));
            return messages;
        }
        messages.AddRange(Infos(random, Opt.Go, form, [TextInfo(InfoType.Description, "a disk"), Blocks(1, random.Next(2) == 0)]));
        return messages;
    }

    /// <summary>The greeting, and the replies up to the first export that is named.</summary>
    public static List<WireMessage> Beginning(ClientForm form, bool noZeroes)
    {
        List<WireMessage> messages = [Greeting(noZeroes ? 3u : 1)];
        if (form.IsRefused && form.IsStructured)
        {
            messages.Add(Refusal(Opt.ExtendedHeaders, Rep.Unsup));
        }
        if (form.IsStructured)
        {
            messages.Add(WireMessage.OptionReply(form.IsExtended ? Opt.ExtendedHeaders : Opt.StructuredReply, Rep.Ack));
        }
        return messages;
    }

    /// <summary>The replies to the options for contexts that come before an export is entered.</summary>
    public static List<WireMessage> Contexts(ClientForm form)
        => form.IsStructured
            ? [.. form.ListsContexts ? ContextList(Opt.ListMeta, form) : [], .. form.Contexts.Count > 0 ? ContextList(Opt.SetMeta, form) : []]
            : [];

    public static List<WireMessage> ContextList(uint option, ClientForm form)
        =>
        [
            .. form.Contexts.Select((name, i) => WireMessage.OptionReply(option, Rep.MetaContext)
                .U32(FieldKind.Number, FirstContext + (uint)i).Add(FieldKind.Text, System.Text.Encoding.UTF8.GetBytes(name)).Repair()),
            WireMessage.OptionReply(option, Rep.Ack),
        ];

    /// <summary>A list of exports.</summary>
    public static List<WireMessage> Exports(Random random)
    {
        List<WireMessage> messages = [];
        foreach (string name in (string[])["", "odd", "huge"])
        {
            WireMessage export = WireMessage.OptionReply(Opt.List, Rep.Server).Text(name);
            messages.Add((random.Next(2) == 0 ? export : export.Add(FieldKind.Text, "a disk"u8.ToArray())).Repair());
        }
        return [.. messages[random.Next(messages.Count)..], WireMessage.OptionReply(Opt.List, Rep.Ack)];
    }

    /// <summary>What NBD_OPT_INFO and NBD_OPT_GO are answered with: what they must be, and some of the rest, in any order.</summary>
    public static List<WireMessage> Infos(Random random, uint option, ClientForm form, List<WireMessage> more)
    {
        List<WireMessage> infos =
        [
            new WireMessage().U16(FieldKind.Type, InfoType.Export).U64(FieldKind.Number, Size)
                .U16(FieldKind.Flags, (ushort)(Flags | (form.FiltersStatus ? TxFlag.BlockStatusPayload : 0))),
            .. more.Where(_ => random.Next(2) == 0),
        ];
        random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(infos));
        return
        [
            .. infos.Select(info => WireMessage.OptionReply(option, Rep.Info).Append(info).Repair()),
            WireMessage.OptionReply(option, Rep.Ack),
        ];
    }

    public static WireMessage Blocks(uint minimum, bool unlimited)
        => new WireMessage().U16(FieldKind.Type, InfoType.BlockSize).U32(FieldKind.Number, minimum).U32(FieldKind.Number, Math.Max(minimum, 4096))
            .U32(FieldKind.Number, unlimited ? uint.MaxValue : 32u << 20);

    public static WireMessage TextInfo(ushort type, string text)
        => new WireMessage().U16(FieldKind.Type, type).Add(FieldKind.Text, System.Text.Encoding.UTF8.GetBytes(text));

    /// <summary>One of the errors that there are for options, and one that there is not.</summary>
    public static WireMessage Refusal(Random random, uint option) => Refusal(option, Refusals[random.Next(Refusals.Length)]);

    private static WireMessage Refusal(uint option, uint error)
        => WireMessage.OptionReply(option, error).Add(FieldKind.Text, "no"u8.ToArray()).Repair();

    private static WireMessage Greeting(uint flags)
        => new WireMessage().U64(FieldKind.Magic, Magic.Nbd).U64(FieldKind.Magic, Magic.IHaveOpt).U16(FieldKind.Flags, (ushort)flags);

    // The reply to NBD_OPT_EXPORT_NAME.
    private static WireMessage Export(bool noZeroes)
    {
        WireMessage export = new WireMessage().U64(FieldKind.Number, Size).U16(FieldKind.Flags, Flags);
        return noZeroes ? export : export.Add(FieldKind.Data, new byte[124]);
    }
}
