using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>Writes legal sessions of a client, as fields.</summary>
internal static class ClientSpeech
{
    private static readonly string[] Names = ["", "", "", "odd", "huge", MutantHandle.Sick, MutantHandle.Late, "missing"];
    private static readonly string[] Queries = ["base:", "base:allocation", "x-test:", "x-test:second", "qemu:allocation-depth"];

    // What a block status may name of the two contexts that were selected.
    private static readonly uint[][] Contexts = [[1], [2], [1, 2], [2, 1]];

    /// <summary>A handshake with some questions in it, which enters the transmission phase.</summary>
    /// <param name="random">Decides which.</param>
    /// <param name="questions">The most options that only ask.</param>
    /// <param name="form">0 simple, 1 structured replies, 2 with meta contexts; 3 extended headers, 4 with meta contexts.</param>
    /// <param name="export">The export to enter.</param>
    public static List<WireMessage> Handshake(Random random, int questions, int form, string export)
    {
        List<WireMessage> messages = [new WireMessage().U32(FieldKind.Flags, random.Next(4) == 0 ? 1u : 3u)];
        bool listed = false;
        int opens = 0;
        for (int i = random.Next(questions + 1); i > 0; i--)
        {
            string name = Names[random.Next(Names.Length)];
            switch (random.Next(6))
            {
                case 0 when !listed:
                    messages.Add(WireMessage.Option(Opt.List));
                    listed = true;
                    break;
                case 1 when opens++ < 3:
                    messages.Add(Info(Opt.Info, name, random));
                    break;
                case 2 when opens++ < 3:
                    messages.Add(Meta(Opt.ListMeta, name, random));
                    break;
                case 3:
                    messages.Add(WireMessage.Option(Opt.StartTls));
                    break;
                case 4:
                    // At times longer than what a server makes room for at once, and than what one that allows less parses.
                    int length = random.Next(16) == 0 ? random.Next(8 << 10, 24 << 10) : 3;
                    messages.Add(WireMessage.Option(0x1234).Add(FieldKind.Data, new byte[length]).Repair());
                    break;
                default:
                    messages.Add(Info(Opt.Go, "missing", random));
                    break;
            }
        }
        if (form > 0)
        {
            messages.Add(WireMessage.Option(form < 3 ? Opt.StructuredReply : Opt.ExtendedHeaders));
        }
        if (form is 2 or 4)
        {
            // Of both there are, so that a block status with a payload has a choice.
            messages.Add(Meta(Opt.SetMeta, export, random, "x-test:second"));
        }
        messages.Add(form == 0 && random.Next(3) == 0
            ? WireMessage.Option(Opt.ExportName).Add(FieldKind.Text, System.Text.Encoding.UTF8.GetBytes(export)).Repair()
            : Info(Opt.Go, export, random));
        return messages;
    }

    /// <summary>Some requests, and a goodbye.</summary>
    public static List<WireMessage> Requests(Random random, int form, string export, bool flushes)
    {
        var messages = new List<WireMessage>();
        bool extended = form >= 3;
        uint unit = export == "odd" ? 512u : 1u;
        for (int i = random.Next(1, 9); i > 0; i--)
        {
            ulong cookie = (ulong)random.NextInt64();
            ulong offset = (ulong)random.Next(32) * 512;
            uint length = unit == 1 ? (uint)random.Next(1, 5000) : (uint)random.Next(1, 9) * unit;
            if (unit == 1 && random.Next(64) == 0)
            {
                // As large as what has memory of its own.
                (offset, length) = (0, 64 << 10);
            }
            ushort type = (ushort)random.Next(8);
            ushort flags = type is Cmd.Write or Cmd.Trim or Cmd.WriteZeroes && random.Next(3) == 0 ? CmdFlag.Fua : CmdFlag.None;
            switch (type)
            {
                case Cmd.Write:
                    messages.Add(WireMessage.Request(
                        extended, type, (ushort)(flags | (extended ? CmdFlag.PayloadLength : 0)), cookie, offset, length)
                        .Payload(new byte[length]));
                    break;
                case Cmd.Disc or Cmd.Flush when flushes:
                    messages.Add(WireMessage.Request(extended, Cmd.Flush, 0, cookie, 0, 0));
                    break;
                case Cmd.BlockStatus when form is 4 && random.Next(2) == 0:
                    flags = (ushort)(CmdFlag.PayloadLength | (random.Next(3) == 0 ? CmdFlag.ReqOne : CmdFlag.None));
                    messages.Add(WireMessage.Request(extended, type, flags, cookie, offset, 0)
                        .StatusPayload(length, Contexts[random.Next(Contexts.Length)]));
                    break;
                case Cmd.BlockStatus when form is 2 or 4:
                    flags = random.Next(3) == 0 ? CmdFlag.ReqOne : CmdFlag.None;
                    messages.Add(WireMessage.Request(extended, type, flags, cookie, offset, length));
                    break;
                case Cmd.Trim or Cmd.Cache or Cmd.WriteZeroes:
                    messages.Add(WireMessage.Request(extended, type, flags, cookie, offset, length));
                    break;
                default:
                    messages.Add(WireMessage.Request(extended, Cmd.Read, 0, cookie, offset, length));
                    break;
            }
        }
        messages.Add(WireMessage.Request(extended, Cmd.Disc, 0, 0, 0, 0));
        return messages;
    }

    private static WireMessage Info(uint option, string name, Random random)
    {
        int count = random.Next(4);
        WireMessage message = WireMessage.Option(option).Text(name).U16(FieldKind.Number, (ushort)count);
        for (int i = 0; i < count; i++)
        {
            message.U16(FieldKind.Type, (ushort)random.Next(5));
        }
        return message.Repair();
    }

    private static WireMessage Meta(uint option, string name, Random random, params string[] second)
    {
        // One that selects something stands first.
        string[] first = ["base:allocation", .. second];
        int more = random.Next(3);
        WireMessage message = WireMessage.Option(option).Text(name).U32(FieldKind.Number, (uint)(first.Length + more));
        foreach (string query in first)
        {
            message.Text(query);
        }
        for (int i = 0; i < more; i++)
        {
            message.Text(Queries[random.Next(Queries.Length)]);
        }
        return message.Repair();
    }
}
