namespace NbdKit.Plugins;

/// <summary>What a member of a <see cref="MirrorPlugin"/> is good for.</summary>
public enum MirrorMemberState
{
    /// <summary>It has everything, and is read from.</summary>
    InSync,

    /// <summary>It takes every change, and gets the rest in the background. It is not read from.</summary>
    Resyncing,

    /// <summary>It failed, and is left alone.</summary>
    Failed,

    /// <summary>It is no longer part of the mirror.</summary>
    Removed,
}
